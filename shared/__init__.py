"""The code that api, workers and trainer share: settings, tables, object store, queue, imaging, detector and more."""
