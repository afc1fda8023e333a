"""Parts of a study that come from outside: plugins, kinds of Optuna, what a program prints."""
