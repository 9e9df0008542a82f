"""One module per stage; each is imported when it is called.

A stage is a function `stage(params, data, *, tracker, each) -> Metrics`. It reads published
outputs, publishes its own, and knows neither Prefect nor DVC.
"""

__all__ = ["STAGES"]

STAGES = {
    "ingest": "vqmri.stages.ingest:ingest",
    "train_vqvae": "vqmri.stages.train_vqvae:train_vqvae",
    "encode": "vqmri.stages.encode:encode",
    "train_prior": "vqmri.stages.train_prior:train_prior",
    "sample": "vqmri.stages.sample:sample",
    "study": "vqmri.stages.study:study",
    "use": "vqmri.stages.use:use",
    "evaluate": "vqmri.stages.evaluate:evaluate",
}
"""Every stage, in the order of the data flow."""
