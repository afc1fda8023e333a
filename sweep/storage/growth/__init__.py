"""A study that grows: what it may grow by, and the trials that it takes over."""
