"""The shell around the commands of fc-arrayapi: arguments, messages, and what is installed."""
