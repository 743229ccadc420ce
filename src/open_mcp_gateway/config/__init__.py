"""The settings of one gateway: read from file, environment and options, checked as a whole."""
