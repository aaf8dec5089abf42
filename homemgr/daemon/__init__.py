"""The service's mind: homes, their states, queues and references, and who may do what."""
