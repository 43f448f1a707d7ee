"ULMFiT as a book you can run and install."
__version__ = "0.2.0"
