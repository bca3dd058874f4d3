"""Jobs on this machine: SQLite, one worker process, a folder a job."""
