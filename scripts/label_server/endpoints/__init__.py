"""The addresses of MONAI Label that pathology needs: what viewers ask for, and what they are answered."""
