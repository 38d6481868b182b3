"""The patterns that ``fuse`` recognises: one file a family, one function a pattern."""
