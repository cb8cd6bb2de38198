"""One tar with everything that an installation without a network needs. top/ holds what lies in its folder as it is."""
