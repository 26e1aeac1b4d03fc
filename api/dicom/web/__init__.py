"""DICOMweb, PS3.18: studies by STOW-RS, QIDO-RS and WADO-RS, for DICOM clients."""
