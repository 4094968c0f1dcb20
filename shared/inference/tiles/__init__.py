"""From a slide to tiles, through a network, and back onto one grid."""
