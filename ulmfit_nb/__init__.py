"ULMFiT as a book you can run and install."
__version__ = "0.1.0"
