"""``python -m experiments.text_to_image``"""

from experiments.text_to_image.run import main

main()
