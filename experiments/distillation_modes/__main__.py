"""``python -m experiments.distillation_modes``"""

from experiments.distillation_modes.run import main

main()
