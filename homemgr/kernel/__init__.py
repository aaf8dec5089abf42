"""System calls, ioctls and kernel text files as plain functions: no policy, no names of users."""
