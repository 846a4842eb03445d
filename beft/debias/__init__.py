"""PEFTDebias: patches trained on counterfactual text, fine-tuning with a frozen patch, measures of bias."""
