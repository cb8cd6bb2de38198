"""Who may use which route: rules, keys, sessions of browsers."""
