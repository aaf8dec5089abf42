"""Room wire: D-Bus and varlink as transports; knows nothing of home areas."""
