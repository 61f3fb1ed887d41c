"""What ``dl4py`` does in a shell."""
