"""All that knows Reverb."""
