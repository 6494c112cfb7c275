"""Database migrations: forward only, one SQL file each."""
