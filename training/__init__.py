"""What is learned: from the event log to a model artifact.

The data flows through the files in this order: ``dataset`` → ``models/`` → ``index`` → ``blend`` →
``evaluate`` → ``gate`` → ``run`` (publish). Nothing here talks to Redis or to the serving engine;
the command line hands the engine in as a ``RecommenderFactory``.
"""
