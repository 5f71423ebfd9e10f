"""Load and run a network: every runtime behind one `Runner`. Nothing here times or builds."""
