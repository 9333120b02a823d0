"""Running a task: plan, job, result."""
