"""How good results are, in numbers; all on uint8 RGB pictures."""
