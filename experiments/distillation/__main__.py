"""``python -m experiments.distillation``"""

from experiments.distillation.run import main

main()
