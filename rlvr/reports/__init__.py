"""Reports: one page about runs and files of rollouts, and the same page while a run goes on."""
