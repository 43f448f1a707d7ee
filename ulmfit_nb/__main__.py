"`python -m ulmfit_nb` is the `ulmfit` command."
from .cli import main

main()
