"""``python -m experiments.backbone``"""

from experiments.backbone.run import main

main()
