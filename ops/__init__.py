"""Native and reference ops, one file each."""
