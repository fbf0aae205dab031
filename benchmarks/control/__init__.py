"""Learning to control a real system, method beside method: the problem grades them all alike.

problem.py    what is to be learned, and the real system as a method gets it: every step counted
grading.py    what a policy earns, on episodes that cost nothing and are told to nobody
trial.py      one method on one problem with one seed
progress.py   what a trial keeps to go on after a kill
dyna_run.py   `sindyrl.learn.dyna` as the methods built on it run it
study.py      many trials: resumed, in parallel, summarized; the options of `sindyrl bench <task>`
methods/      one file a method, found by its name
"""
