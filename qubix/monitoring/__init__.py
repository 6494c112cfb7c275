"""What the platform's database says of the platform, for Prometheus."""
