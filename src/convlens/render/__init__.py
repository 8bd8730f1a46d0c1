"""How things look: tables, pages and figures from plain rows, numbers and pixel arrays."""
