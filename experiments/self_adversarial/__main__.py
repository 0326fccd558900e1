"""``python -m experiments.self_adversarial``"""

from experiments.self_adversarial.run import main

main()
