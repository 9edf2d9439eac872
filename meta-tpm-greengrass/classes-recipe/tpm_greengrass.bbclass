# The one choice that more than one recipe looks at: which Greengrass the image has.
# docs/reference.md says what each value brings.

TPM_GREENGRASS_EDITION ?= "nucleus"

TPM_GREENGRASS_PACKAGES[nucleus] = "greengrass-bin greengrass-plugin-pkcs11"
TPM_GREENGRASS_PACKAGES[nucleus-lite] = "greengrass-lite"
TPM_GREENGRASS_PACKAGES[none] = ""

def tpm_greengrass_packages(d):
    edition = d.getVar('TPM_GREENGRASS_EDITION')
    packages = d.getVarFlag('TPM_GREENGRASS_PACKAGES', edition)
    if packages is None:
        known = ', '.join(sorted(d.getVarFlags('TPM_GREENGRASS_PACKAGES')))
        raise bb.parse.SkipRecipe(f"TPM_GREENGRASS_EDITION is '{edition}'; it can be {known}")
    if packages and 'meta-aws' not in d.getVar('BBFILE_COLLECTIONS').split():
        raise bb.parse.SkipRecipe(f"TPM_GREENGRASS_EDITION '{edition}' needs the layer meta-aws")
    return packages
