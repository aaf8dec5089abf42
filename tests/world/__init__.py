"""The product's world: boxes with a real systemd, bus, logind, polkit, PAM and sshd."""
