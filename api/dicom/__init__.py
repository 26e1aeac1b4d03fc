"""DICOM over a network: DICOMweb, and the C-STORE listener."""
