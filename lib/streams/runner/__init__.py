"""How jobs run: as workers of a group, alone, or until what is there is done."""
