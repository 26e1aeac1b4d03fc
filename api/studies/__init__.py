"""Routes of studies, images and jobs."""
