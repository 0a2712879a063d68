"""Operators, one module for a family. Importing a module registers its operators."""
