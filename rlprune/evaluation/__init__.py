"""How good a plan is: sliced, one-shot, after fine-tuning; and what is measured around it."""
