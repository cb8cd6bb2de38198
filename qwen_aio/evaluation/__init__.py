"""How good decisions are: measured on rows whose labels are known, and told with intervals."""
