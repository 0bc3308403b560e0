"""The command line: one short file a subcommand, no logic of its own. Installed as ``nmt_async.cli``."""
