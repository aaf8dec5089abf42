"""What lies between an image and its files: partition table, LUKS, file system. Knows no homes."""
