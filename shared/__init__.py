"""What api, workers and trainer stand on: settings, errors, tables, objects, queue, imaging, the detector."""
