"""What users do with the core: tasks, and the pipeline that runs them."""
