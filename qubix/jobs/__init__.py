"""Jobs, attempts, artefacts, blobs and the catalogue of jobs_library."""
