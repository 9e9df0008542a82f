"""`python -m vqmri`, which `torchrun` can start as several processes."""

from vqmri.cli import main

if __name__ == "__main__":
    main(prog_name="vqmri")
