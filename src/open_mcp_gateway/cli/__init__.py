"""The programs: argument parsing, exit codes, and what a terminal shows."""
